"""What tasks build their examples from: prompt files, published prompt sets, ground
truth, pools.

For other packages: every module.
"""
