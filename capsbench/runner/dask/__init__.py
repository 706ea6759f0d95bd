"""Run groups of cases on a Dask cluster: `dispatch` in the process that keeps the run, `group_task` in the workers."""
