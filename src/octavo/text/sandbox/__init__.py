"""Jinja templates that strangers wrote: without reach, and with an end.

Jinja's own sandbox keeps a template away from Python's internals. It does not keep it from looping for hours, or from
building a string that fills the memory. So here every operation whose work can grow is charged to a budget before it
is done, and rendering ends with an error once the budget is spent: no clock, no signal, no second process.

- `syntax` rewrites the syntax tree before it is compiled: loops pay for their items times the size of their body,
  macros for theirs; comparisons, concatenations and slices for the values that go in.
- `environment` intercepts operators, calls and output, `functions` filters and tests. Where the result may be much
  larger than what goes in (`*`, `join`, `replace`, ...), it is paid for beforehand; what chat templates have no use for
  and is hard to bound (`%` on strings, `str.format`, `center`, imports, recursive loops, ...) is missing.

Otherwise the dialect is that of `transformers`: trimmed blocks, `break` and `continue`, `raise_exception`,
`strftime_now`, a `tojson` that leaves HTML alone, and `{% generation %}`.
"""
