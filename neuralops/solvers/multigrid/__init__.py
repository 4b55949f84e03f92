"""The geometric multigrid cycle: coarser grids, transfers, smoothers, learned corrections of its levels."""
