package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"
)

// A call is a question that one node can answer, and the caller need not know which one: whoever the name means something
// to. It waits out the death of that node, and is answered by its heir then. Nothing of it is journaled: who calls must be
// able to call again, and who answers must recognise what was asked before.

// Callee answers the calls of other nodes. Its methods may be called from any goroutine.
type Callee interface {
	// Knows says whether a name means something here.
	Knows(name string) Knowledge
	// Answer answers a request about a name that is known. It may take its time; ctx ends with the node.
	Answer(ctx context.Context, name string, request []byte) []byte
}

// Knowledge is what a node knows of a name.
type Knowledge uint8

const (
	Unknown  Knowledge = iota
	Known              // it answers
	Leaving            // it is between this node and another one
	maxCalls = 1 << 14 // that one node answers at a time
	maxFound = 1 << 16 // names of which it is remembered who knows them
)

var (
	// ErrNobody says that a name means nothing to any node.
	ErrNobody = errors.New("cluster: no node knows the name")
	// ErrHere says that it means something here, or does by now.
	ErrHere = errors.New("cluster: this node knows the name")

	errLeaving = errors.New("cluster: the name is between nodes")
)

const (
	callAgain    = 30 * time.Millisecond // until all are asked, and asked again
	callAtMost   = 250 * time.Millisecond
	callPatience = 20 * time.Second
	callLeaving  = 3 * time.Second // for what is between this node and another one
	callID       = 8
)

// calls are those that this node makes and those that it answers.
type calls struct {
	callee   Callee
	patience time.Duration // to find who answers

	mu      sync.Mutex
	last    uint64
	found   map[string]string // by name: the node that answered last
	made    map[uint64]*call
	serving map[string]struct{} // by caller and its number
}

// call is one that was made.
type call struct {
	replies chan reply

	// Owned by who called.
	round byte // of asking
	taken bool // a node said that it answers, and then was gone
}

// reply is what a node says to a call.
type reply struct {
	from   string
	op     uint8
	round  byte
	answer []byte
}

// begin makes a call, and returns where it is most likely answered.
func (c *calls) begin(name, first string) (id uint64, made *call, likely string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if node, known := c.found[name]; known {
		first = node
	}
	if c.made == nil {
		c.made = make(map[uint64]*call)
	}
	c.last++
	made = &call{replies: make(chan reply, 64)}
	c.made[c.last] = made
	return c.last, made, first
}

// foundAt remembers who answered, or forgets it.
func (c *calls) foundAt(name, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if node == "" {
		delete(c.found, name)
		return
	}
	if c.found == nil || len(c.found) >= maxFound {
		c.found = make(map[string]string)
	}
	c.found[name] = node
}

func (c *calls) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.made, id)
}

// Call has a request about a name answered by the node that knows it; first is where that is most likely. It fails with
// ErrNobody, with ErrHere, or with ctx. Nothing may be locked.
func (n *Node) Call(ctx context.Context, name, first string, request []byte) ([]byte, error) {
	id, made, first := n.calls.begin(name, first)
	defer n.calls.end(id)
	give := time.NewTimer(n.calls.patience)
	defer give.Stop()
	payload := binary.LittleEndian.AppendUint64(nil, id)
	payload = append(payload, 0)
	payload = binary.AppendUvarint(payload, uint64(len(name)))
	payload = append(append(payload, name...), request...)
	began := time.Now()
	for wait := callAgain; ; wait = min(2*wait, callAtMost) {
		here := n.calls.callee.Knows(name)
		if here == Known {
			return nil, ErrHere
		}
		asked := n.Members()
		if made.round == 0 && slices.Contains(asked, first) {
			asked = []string{first}
		}
		made.round++
		payload[callID] = made.round
		for _, node := range asked {
			n.Tell(node, Message{Op: opCall, Payload: slices.Clone(payload)})
		}
		again := time.After(wait)
		r, err := n.awaitReplies(ctx, made, asked, first, again)
		switch {
		case errors.Is(err, ErrNobody) && here == Leaving: // it may come back here, or be known elsewhere soon
			if time.Since(began) > callLeaving {
				return nil, errLeaving
			}
			select {
			case <-again:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case errors.Is(err, ErrNobody):
			n.calls.foundAt(name, "")
			return nil, err
		case err != nil:
			return nil, err
		case r != nil:
			n.calls.foundAt(name, r.from)
			return r.answer, nil
		case made.taken: // it may have been for a minute, and its heir is looked for from now on
			made.taken, wait = false, callAgain
			give.Reset(n.calls.patience)
		}
		select {
		case <-give.C:
			return nil, ErrNobody
		default:
		}
	}
}

// awaitReplies waits until somebody has answered, nobody knows, or it is time to ask again: then there is no reply.
func (n *Node) awaitReplies(ctx context.Context, c *call, asked []string, first string, again <-chan time.Time) (*reply, error) {
	unknown := make(map[string]bool)
	for {
		if len(unknown) == len(asked) && !(len(asked) == 1 && asked[0] == first && c.round == 1) {
			return nil, ErrNobody
		}
		select {
		case r := <-c.replies:
			switch {
			case r.op == opAnswer:
				return &r, nil
			case r.op == opTaken:
				c.taken = true
				return n.awaitAnswer(ctx, c, r.from)
			case r.round == c.round && slices.Contains(asked, r.from):
				unknown[r.from] = true
			}
		case <-again:
			if slices.Contains(asked, first) && !unknown[first] {
				n.run(func() { n.Suspect(n.ctx, first) })
			}
			return nil, nil //nolint:nilnil // neither an answer nor an error
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// awaitAnswer waits for a node that has said that it answers, as long as it is there.
func (n *Node) awaitAnswer(ctx context.Context, c *call, from string) (*reply, error) {
	for {
		changed := n.AwaitChange()
		if !n.isMember(from) {
			return nil, nil //nolint:nilnil // it is asked again
		}
		select {
		case r := <-c.replies:
			if r.op == opAnswer {
				return &r, nil
			}
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// called takes what others say of calls, theirs and this node's.
func (n *Node) called(from string, m Message) {
	if len(m.Payload) < callID+1 {
		return
	}
	if m.Op != opCall {
		n.calls.mu.Lock()
		made := n.calls.made[binary.LittleEndian.Uint64(m.Payload)]
		n.calls.mu.Unlock()
		if made == nil {
			return
		}
		select {
		case made.replies <- reply{from, m.Op, m.Payload[callID], slices.Clone(m.Payload[callID+1:])}:
		default: // it is asked again
		}
		return
	}
	if n.calls.callee == nil {
		return
	}
	size, at := binary.Uvarint(m.Payload[callID+1:])
	rest := m.Payload[callID+1+max(at, 0):]
	if at <= 0 || size > uint64(len(rest)) {
		return
	}
	n.answerCall(from, slices.Clone(m.Payload[:callID+1]), string(rest[:size]), slices.Clone(rest[size:]))
}

// answerCall answers, in a goroutine of its own.
func (n *Node) answerCall(from string, id []byte, name string, request []byte) {
	key := from + string(id[:callID])
	n.calls.mu.Lock()
	_, again := n.calls.serving[key]
	full := len(n.calls.serving) >= maxCalls
	if !again && !full {
		if n.calls.serving == nil {
			n.calls.serving = make(map[string]struct{})
		}
		n.calls.serving[key] = struct{}{}
	}
	n.calls.mu.Unlock()
	switch {
	case again:
		n.Tell(from, Message{Op: opTaken, Payload: id})
		return
	case full:
		return
	}
	done := func() {
		n.calls.mu.Lock()
		defer n.calls.mu.Unlock()
		delete(n.calls.serving, key)
	}
	if !n.run(func() {
		defer done()
		switch n.calls.callee.Knows(name) {
		case Unknown:
			n.Tell(from, Message{Op: opUnknown, Payload: id})
		case Known:
			n.Tell(from, Message{Op: opTaken, Payload: id})
			answer := n.calls.callee.Answer(n.ctx, name, request)
			n.Tell(from, Message{Op: opAnswer, Payload: append(id, answer...)})
		case Leaving: // the heir answers
		}
	}) {
		done()
	}
}
