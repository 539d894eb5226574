"""Where a job runs: the loop that gives out lanes, and the seam behind which the work is done."""
