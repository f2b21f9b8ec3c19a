import torch

# Tensors here are tiny: a second thread only costs time.
torch.set_num_threads(1)
