-- Makes the empty streams of a new node.
-- KEYS: journal, mailbox, fence, journal:dead
-- Returns 1, or 0 when there is or was a node of that name.
if redis.call('EXISTS', KEYS[1], KEYS[3], KEYS[4]) > 0 then
	return 0
end
for i = 1, 2 do
	redis.call('XGROUP', 'CREATE', KEYS[i], 'none', '$', 'MKSTREAM')
	redis.call('XGROUP', 'DESTROY', KEYS[i], 'none')
end
return 1
