"""From a pilot's best settings to those of the job that is paid for, and a check that they fit."""
