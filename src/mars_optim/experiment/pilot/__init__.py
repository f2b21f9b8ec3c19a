"""Many runs: equal tuning for every arm, a ladder of budgets, paired seeds."""
