"""The supervised change from one generation to the next.

Pure: ``state``, ``transitions``, ``record``, ``observation``, ``actions``, ``edits``, ``stages``, ``decision``,
``strategies``. With I/O: ``history``, ``preflight``, ``planning``, ``arrival``, ``side_switch``, ``cluster_executor``,
``reconciler``.
"""
