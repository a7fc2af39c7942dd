"""What the writer and the reader of scan files agree on."""

FORMAT = "mergescope.scan"
VERSION = 1
TASK = "task_"  # before the name of a field of `TaskSums`
