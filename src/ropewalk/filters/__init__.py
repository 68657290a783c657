"""What stands between: one filter per file, each a policy, a clock and an await; the same file on both sides.

A filter holds no state of a request outside its own coroutine. Which filters stand where, and why, is said in one
place: `runtime/stacks.py`.
"""
