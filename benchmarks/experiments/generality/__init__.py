"""Does a sparse model generalise, or specialise? Within the task, between tasks, under shift, and by ceiling."""
