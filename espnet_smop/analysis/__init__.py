"""What is learnt from a decoded experiment: intervals, plots, reports."""
