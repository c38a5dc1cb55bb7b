package roster

import (
	"fmt"
	"testing"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/stanza"
)

// login is what a session asks when a user comes online.
func login(b *testing.B, s *Service, user stanza.Addr) {
	if _, _, err := s.Get(b.Context(), user); err != nil {
		b.Fatal(err)
	}
	must(s.Subscribers(b.Context(), user))(b)
	must(s.Subscriptions(b.Context(), user))(b)
	must(s.PendingRequests(b.Context(), user))(b)
}

func sqliteService(b *testing.B) *Service {
	return newService(b, DefaultConfig(), must(OpenSQLite(b.Context(), sqlxtest.Open(b)))(b))
}

func BenchmarkLogin(b *testing.B) {
	for _, n := range []int{0, 20, 1000} {
		b.Run(fmt.Sprintf("contacts=%d", n), func(b *testing.B) {
			store := newMemory()
			rows := make(map[string]Row)
			for i := range n {
				contact := user(i).String()
				rows[contact] = Row{Contact: contact, Subscription: Both, Listed: true, Version: uint64(i) + 1}
			}
			store.users[romeo.String()] = stored{version: uint64(n), rows: rows}
			s := newService(b, DefaultConfig(), store)
			b.ReportAllocs()
			for b.Loop() {
				login(b, s, romeo)
			}
		})
	}
}

// BenchmarkFirstLogin reads empty rosters from SQLite.
func BenchmarkFirstLogin(b *testing.B) {
	s := sqliteService(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		login(b, s, user(i))
		i++
	}
}

// BenchmarkSubscribe is a request and its withdrawal, each a transaction, in a roster of 20.
func BenchmarkSubscribe(b *testing.B) {
	s := sqliteService(b)
	for i := range 20 {
		must(s.Set(b.Context(), romeo, Item{Contact: user(i)}))(b)
	}
	b.ReportAllocs()
	for b.Loop() {
		must(s.Outbound(b.Context(), romeo, user(7), Subscribe))(b)
		must(s.Outbound(b.Context(), romeo, user(7), Unsubscribe))(b)
	}
}
