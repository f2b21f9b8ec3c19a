"""gamma_t: a number, tied to the learning rate, or chosen by what the steps show."""
