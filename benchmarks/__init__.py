"""Step time and memory of the optimizers here against whatever peers are installed."""
