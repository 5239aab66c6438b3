"""Addition, whole: the task, the recipe, its report, figures, page and proof."""
