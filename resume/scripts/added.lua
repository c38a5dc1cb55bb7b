-- KEYS: a stream
-- Returns how many entries it ever took, whether they are still there or not.
local facts = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #facts, 2 do
	if facts[i] == 'entries-added' then
		return facts[i + 1]
	end
end
return redis.error_reply('ERR this server does not count the entries of a stream')
