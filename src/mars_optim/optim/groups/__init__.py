"""Which parameter gets which rule: roles, splitting of groups, their keys."""
