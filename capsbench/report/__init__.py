"""From records to tables, as data (`tables`, `ops`) and on the console."""
