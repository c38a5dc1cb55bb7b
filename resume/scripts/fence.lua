-- Takes from a node what it writes to, in one step: it finds neither stream any more, and so writes nothing.
-- KEYS: fence, journal, mailbox, journal:dead, mailbox:dead
-- ARGV: who adopts the node, in place of whom ('' for nobody)
-- Returns who adopts it now.
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[2] or holder == '' then
	holder = ARGV[1]
	redis.call('SET', KEYS[1], holder)
end
for i = 2, 3 do
	if redis.call('EXISTS', KEYS[i]) == 1 then
		redis.call('RENAME', KEYS[i], KEYS[i + 2])
	end
end
return holder
