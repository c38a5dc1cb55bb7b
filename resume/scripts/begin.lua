-- Makes the empty streams of a new node. They go away again unless it enters the cluster, which keeps them.
-- KEYS: journal, mailbox, fence, journal:dead
-- ARGV: how long they live, in milliseconds
-- Returns 1, or 0 when there is or was a node of that name.
if redis.call('EXISTS', KEYS[1], KEYS[3], KEYS[4]) > 0 then
	return 0
end
for i = 1, 2 do
	redis.call('XGROUP', 'CREATE', KEYS[i], 'none', '$', 'MKSTREAM')
	redis.call('XGROUP', 'DESTROY', KEYS[i], 'none')
	redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return 1
