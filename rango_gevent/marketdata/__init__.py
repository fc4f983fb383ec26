"""Market data made from trades: candles, last prices, the last 24 hours, today, tickers.

A process of its own, ``rango marketdata``; a gateway imports nothing of it. Pure are `periods`,
`candles`, `trades`, `market`, `desk`, `queries` and `views`: what they read of a store comes in as
an argument. The others bring trades in, keep state and answer.
"""
