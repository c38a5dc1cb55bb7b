package roster

import (
	"slices"
	"strings"

	"holdfast/stanza"
)

// snapshot is one user's whole roster at one moment. It is never changed: with makes the next one.
type snapshot struct {
	// version is that of the last visible change, 0 when there was none.
	version uint64
	// floor is the oldest version whose every later change is still known.
	floor uint64
	// entries is sorted by contact.
	entries []*entry
	items   int // listed entries
	waiting int // entries with PendingIn
	bytes   int
}

var empty = &snapshot{}

func newSnapshot(version, floor uint64, entries []*entry) *snapshot {
	r := &snapshot{version: version, floor: floor, entries: entries}
	for _, e := range entries {
		r.bytes += e.size()
		if e.listed {
			r.items++
		}
		if e.PendingIn {
			r.waiting++
		}
	}
	return r
}

func compareEntry(e *entry, contact string) int { return strings.Compare(e.Contact.String(), contact) }

// find returns the contact's entry, nil when there is none.
func (r *snapshot) find(contact stanza.Addr) *entry {
	if i, ok := slices.BinarySearchFunc(r.entries, contact.String(), compareEntry); ok {
		return r.entries[i]
	}
	return nil
}

// with returns r with e in its contact's place and what a store must change for it. When visible, e gets the next
// version, now if the clock allows. history is how many removals to remember, 0 for all.
func (r *snapshot) with(e entry, visible bool, now uint64, history int) (*snapshot, Delta) {
	version, floor := r.version, r.floor
	if visible {
		version = max(now, version+1)
		if r.version == 0 {
			// What the same name's account had in an earlier life is not known any more.
			floor = version - 1
		}
		e.version = version
	}

	var d Delta
	entries := slices.Clone(r.entries)
	put := func(e *entry) {
		i, had := slices.BinarySearchFunc(entries, e.Contact.String(), compareEntry)
		switch {
		case !e.void() && had:
			entries[i] = e
		case !e.void():
			entries = slices.Insert(entries, i, e)
		case had:
			entries = slices.Delete(entries, i, i+1)
		}
		if e.void() {
			d.Delete = append(d.Delete, e.Contact.String())
		} else {
			d.Put = append(d.Put, e.row())
		}
	}
	put(&e)

	if history > 0 && !e.listed && visible {
		for {
			oldest, n := (*entry)(nil), 0
			for _, e := range entries {
				if !e.listed && e.version != 0 {
					n++
					if oldest == nil || e.version < oldest.version {
						oldest = e
					}
				}
			}
			if n <= history {
				break
			}
			floor = max(floor, oldest.version)
			forgotten := *oldest
			forgotten.version = 0
			put(&forgotten)
		}
	}

	d.Version, d.Floor = version, floor
	return newSnapshot(version, floor, entries), d
}

// since lists the visible changes after version, oldest first; ok is false when some of them are forgotten or the
// version is not of this roster.
func (r *snapshot) since(version uint64) (changes []Change, ok bool) {
	if version < r.floor || version > r.version {
		return nil, false
	}
	var changed []*entry
	for _, e := range r.entries {
		if e.version > version {
			changed = append(changed, e)
		}
	}
	slices.SortFunc(changed, func(a, b *entry) int {
		if a.version < b.version {
			return -1
		}
		return 1 // versions are unique
	})
	for _, e := range changed {
		changes = append(changes, e.change())
	}
	return changes, true
}

// list returns the visible items.
func (r *snapshot) list() []Item {
	if r.items == 0 {
		return nil
	}
	items := make([]Item, 0, r.items)
	for _, e := range r.entries {
		if e.listed {
			items = append(items, e.Item)
		}
	}
	return items
}

// contacts returns those whose entry the question is answered yes for.
func (r *snapshot) contacts(question func(*entry) bool) []stanza.Addr {
	var out []stanza.Addr
	for _, e := range r.entries {
		if question(e) {
			if out == nil {
				out = make([]stanza.Addr, 0, len(r.entries))
			}
			out = append(out, e.Contact)
		}
	}
	return out
}
