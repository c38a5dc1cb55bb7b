-- Removes entries and then puts others.
-- KEYS: journal, cache, deadlines, checkpoint
-- ARGV: number of this write; how many ids to remove; those ids; then id, deadline and entry of each to put.
-- Returns 1; 0 when the node was fenced; -1 when a later write was here before.
if redis.call('EXISTS', KEYS[1]) == 0 then
	return 0
end
local done = tonumber(redis.call('HGET', KEYS[4], 'cache') or '0')
local number = tonumber(ARGV[1])
if number == done then
	return 1 -- the client library repeated it
elseif number < done then
	return -1
end
local puts = 3 + tonumber(ARGV[2])
for i = 3, puts - 1 do
	redis.call('HDEL', KEYS[2], ARGV[i])
	redis.call('ZREM', KEYS[3], ARGV[i])
end
for i = puts, #ARGV, 3 do
	redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
	redis.call('ZADD', KEYS[3], ARGV[i + 1], ARGV[i])
end
redis.call('HSET', KEYS[4], 'cache', ARGV[1])
return 1
