"""Work of each rank in the distributed tests."""
