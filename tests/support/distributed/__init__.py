"""What each rank of the distributed tests runs."""
