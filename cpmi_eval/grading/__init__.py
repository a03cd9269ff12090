"""Read the final answer that a solution states, and decide whether two answers are one."""

from cpmi_eval.grading.comparing import verdict
from cpmi_eval.grading.finding import final_answer

__all__ = ["final_answer", "verdict"]
