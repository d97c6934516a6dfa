"""Which weights of a teacher a task needs: ranks, scores, slices, and the student that starts from one."""
