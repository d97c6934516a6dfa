"""How any model is fitted: the task, the recipe, the loss, checkpoints and averages along the way."""
