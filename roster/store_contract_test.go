package roster

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
)

// backend opens a Store at a place; what was there before is there again.
type backend struct {
	name    string
	lasting bool
	place   func(t testing.TB) string
	open    func(t *testing.T, place string) Store
}

func aDir(t testing.TB) string { return t.TempDir() }

var backends = []backend{
	{name: "memory", place: aDir, open: func(*testing.T, string) Store { return newMemory() }},
	{name: "sqlite", lasting: true, place: aDir, open: func(t *testing.T, dir string) Store {
		return must(OpenSQLite(t.Context(), sqlxtest.OpenDir(t, dir)))(t)
	}},
	{name: "postgres", lasting: true, place: postgresproc.New, open: func(t *testing.T, url string) Store {
		return must(OpenPostgres(t.Context(), sqlxtest.OpenPostgres(t, url)))(t)
	}},
}

func eachBackend(t *testing.T, run func(t *testing.T, b backend)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { run(t, b) })
	}
}

func wantRecord(t *testing.T, s Store, user string, want Record) {
	t.Helper()
	got := must(s.Load(t.Context(), user))(t)
	byContact := func(a, b Row) int { return cmp.Compare(a.Contact, b.Contact) }
	slices.SortFunc(got.Rows, byContact)
	slices.SortFunc(want.Rows, byContact)
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: -want +got\n%s", user, diff)
	}
}

func save(t *testing.T, s Store, user string, d Delta) {
	t.Helper()
	if err := s.Save(t.Context(), user, d); err != nil {
		t.Fatal(err)
	}
}

// full has everything a row can hold.
var full = Row{
	Contact: "juliet@example.com", Name: "Julia \"<&'é\n", Groups: []string{"Friends", "a,b", `["x"]`, "é\t"},
	Subscription: Both, Ask: true, Approved: true, PendingIn: true, Request: []byte("<presence a='\x00'/>"),
	Listed: true, Version: 1 << 52,
}

func TestStoreContract(t *testing.T) {
	t.Run("unknown user", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			s := b.open(t, b.place(t))
			wantRecord(t, s, "nobody@localhost", Record{})
			if err := s.Remove(t.Context(), "nobody@localhost"); err != nil {
				t.Error(err)
			}
		})
	})

	t.Run("put, replace, delete", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			s := b.open(t, b.place(t))
			plain := Row{Contact: "a@localhost", Listed: true, Version: 3}
			gone := Row{Contact: "b@localhost", Version: 4}
			save(t, s, "romeo@localhost", Delta{Version: 4, Floor: 2, Put: []Row{full, plain, gone}})
			wantRecord(t, s, "romeo@localhost", Record{Version: 4, Floor: 2, Rows: []Row{full, plain, gone}})

			bare := Row{Contact: full.Contact, Subscription: To, Listed: true, Version: 5}
			save(t, s, "romeo@localhost", Delta{Version: 5, Floor: 4, Put: []Row{bare}, Delete: []string{"b@localhost", "never@localhost"}})
			wantRecord(t, s, "romeo@localhost", Record{Version: 5, Floor: 4, Rows: []Row{bare, plain}})

			save(t, s, "romeo@localhost", Delta{Version: 6, Floor: 4, Delete: []string{full.Contact, plain.Contact}})
			wantRecord(t, s, "romeo@localhost", Record{Version: 6, Floor: 4})
		})
	})

	t.Run("each subscription", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			s := b.open(t, b.place(t))
			var rows []Row
			for sub := None; sub <= Both; sub++ {
				for flags := range 8 {
					rows = append(rows, Row{
						Contact: fmt.Sprintf("%d.%d@localhost", sub, flags), Subscription: sub,
						Ask: flags&1 != 0, Approved: flags&2 != 0, PendingIn: flags&4 != 0,
					})
				}
			}
			save(t, s, "romeo@localhost", Delta{Put: rows})
			wantRecord(t, s, "romeo@localhost", Record{Rows: rows})
		})
	})

	t.Run("users are apart", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			s := b.open(t, b.place(t))
			row := Row{Contact: "juliet@localhost", Listed: true, Version: 1}
			users := []string{"romeo@localhost", "romeo@localhost2", "Romeo@localhost", "rome_@localhost"}
			for i, u := range users {
				row.Name = u
				save(t, s, u, Delta{Version: uint64(i) + 1, Put: []Row{row}})
			}
			if err := s.Remove(t.Context(), users[0]); err != nil {
				t.Fatal(err)
			}
			save(t, s, users[1], Delta{Version: 9, Delete: []string{row.Contact}})
			wantRecord(t, s, users[0], Record{})
			wantRecord(t, s, users[1], Record{Version: 9})
			for i := 2; i < len(users); i++ {
				row.Name = users[i]
				wantRecord(t, s, users[i], Record{Version: uint64(i) + 1, Rows: []Row{row}})
			}
		})
	})

	t.Run("users at once", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			s := b.open(t, b.place(t))
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					user := fmt.Sprintf("u%d@localhost", i)
					for v := uint64(1); v <= 5; v++ {
						row := Row{Contact: fmt.Sprintf("c%d@localhost", v), Listed: true, Version: v}
						if err := s.Save(context.Background(), user, Delta{Version: v, Put: []Row{row}}); err != nil {
							t.Error(err)
						}
						if rec, err := s.Load(context.Background(), user); err != nil || len(rec.Rows) != int(v) {
							t.Errorf("%s has %d rows, want %d: %v", user, len(rec.Rows), v, err)
						}
					}
				})
			}
			wg.Wait()
		})
	})

	t.Run("reopened", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			if !b.lasting {
				t.Skip("keeps nothing")
			}
			place := b.place(t)
			// The first one is never closed before the second reads, as after a kill.
			first := b.open(t, place)
			save(t, first, "romeo@localhost", Delta{Version: 8, Floor: 3, Put: []Row{full}})
			want := Record{Version: 8, Floor: 3, Rows: []Row{full}}
			wantRecord(t, b.open(t, place), "romeo@localhost", want)
		})
	})

	t.Run("ended context", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, b backend) {
			if !b.lasting {
				t.Skip("does not wait")
			}
			s := b.open(t, b.place(t))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Save(ctx, "romeo@localhost", Delta{Version: 1, Put: []Row{full}}); err == nil {
				t.Error("saved for a caller that had gone")
			}
			wantRecord(t, s, "romeo@localhost", Record{})
		})
	})
}

// TestSQLiteSaveIsWhole has the last statement of a Save fail.
func TestSQLiteSaveIsWhole(t *testing.T) {
	db := sqlxtest.Open(t)
	s := must(OpenSQLite(t.Context(), db))(t)
	err := db.Tx(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`CREATE TRIGGER spoil BEFORE DELETE ON roster_item WHEN old.contact = 'b@localhost'
			BEGIN SELECT RAISE(ABORT, 'spoilt'); END`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := Record{Version: 1, Rows: []Row{
		{Contact: "a@localhost", Listed: true, Version: 1},
		{Contact: "b@localhost", Listed: true, Version: 1},
	}}
	save(t, s, "romeo@localhost", Delta{Version: 1, Put: before.Rows})
	d := Delta{Version: 2, Floor: 2, Put: []Row{full}, Delete: []string{"a@localhost", "b@localhost"}}
	if err := s.Save(t.Context(), "romeo@localhost", d); err == nil {
		t.Fatal("the trigger did nothing")
	}
	wantRecord(t, s, "romeo@localhost", before)
	if err := s.Remove(t.Context(), "romeo@localhost"); err == nil {
		t.Fatal("the trigger did nothing")
	}
	wantRecord(t, s, "romeo@localhost", before)
}

// TestSQLiteMigratesOnce opens the tables over themselves.
func TestSQLiteMigratesOnce(t *testing.T) {
	db := sqlxtest.Open(t)
	s := must(OpenSQLite(t.Context(), db))(t)
	save(t, s, "romeo@localhost", Delta{Version: 1, Put: []Row{full}})
	again := must(OpenSQLite(t.Context(), db))(t)
	wantRecord(t, again, "romeo@localhost", Record{Version: 1, Rows: []Row{full}})
}

// TestPostgresSaveIsWhole has the last row of a Save fail.
func TestPostgresSaveIsWhole(t *testing.T) {
	db := sqlxtest.OpenPostgres(t, postgresproc.New(t))
	s := must(OpenPostgres(t.Context(), db))(t)
	for _, statement := range []string{
		`CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'spoilt'; END $$`,
		`CREATE TRIGGER spoil BEFORE DELETE ON roster_item FOR EACH ROW WHEN (old.contact = 'b@localhost') EXECUTE FUNCTION spoil()`,
	} {
		must(db.Exec(t.Context(), statement))(t)
	}
	before := Record{Version: 1, Rows: []Row{
		{Contact: "a@localhost", Listed: true, Version: 1},
		{Contact: "b@localhost", Listed: true, Version: 1},
	}}
	save(t, s, "romeo@localhost", Delta{Version: 1, Put: before.Rows})
	d := Delta{Version: 2, Floor: 2, Put: []Row{full}, Delete: []string{"a@localhost", "b@localhost"}}
	if err := s.Save(t.Context(), "romeo@localhost", d); err == nil {
		t.Fatal("the trigger did nothing")
	}
	wantRecord(t, s, "romeo@localhost", before)
	if err := s.Remove(t.Context(), "romeo@localhost"); err == nil {
		t.Fatal("the trigger did nothing")
	}
	wantRecord(t, s, "romeo@localhost", before)
}

// TestPostgresKilled kills the server behind what was saved.
func TestPostgresKilled(t *testing.T) {
	s := must(OpenPostgres(t.Context(), sqlxtest.OpenPostgres(t, postgresproc.New(t))))(t)
	server := postgresproc.Get(t)
	for v := uint64(1); v <= 3; v++ {
		row := full
		row.Version = v
		save(t, s, "romeo@localhost", Delta{Version: v, Put: []Row{row}})
		server.Kill(t)
		if _, err := s.Load(t.Context(), "romeo@localhost"); err == nil {
			t.Error("it answers")
		}
		server.Start(t)
		wantRecord(t, s, "romeo@localhost", Record{Version: v, Rows: []Row{row}})
	}
}
