"""Groups of cases on Dask: `dispatch` on the machine that keeps the run, `station` in every Dask worker."""
