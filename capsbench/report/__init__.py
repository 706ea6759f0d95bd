"""From records to tables, as data (`tables`, `sections`) and on the console; figures and TensorBoard files."""
