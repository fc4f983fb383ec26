"""Market data made from trades: candles, last prices, the last 24 hours, today, tickers.

A process of its own, ``rango marketdata``; a gateway imports nothing of it, but for the demo,
which uses the pure part. That is `periods`, `candles`, `trades`, `market`, `desk`, `announcer`,
`queries`, `views` and `memory`: what they read of a store comes in as an argument. `worker` runs
them: `feed` brings trades, a store (`sqlstore`, `redisstore`) keeps state, `rpc` brings questions.
`history` brings files in.
"""
