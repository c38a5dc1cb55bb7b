package bench

import (
	"encoding/csv"
	"fmt"
	"io"
)

// Account is a user that the generator logs in as. It remembers the salted password of the last SCRAM exchange,
// since salting it again would only cost the load's own core.
type Account struct {
	Name     string // the local part
	Password string

	saltedFor string // "salt,iterations" that salted was made with
	salted    []byte
}

// NumberedAccounts makes count accounts prefix00000, prefix00001 and so on with one password.
func NumberedAccounts(prefix string, count int, password string) []*Account {
	all := make([]*Account, count)
	for i := range all {
		all[i] = &Account{Name: fmt.Sprintf("%s%05d", prefix, i), Password: password}
	}
	return all
}

// ReadAccounts reads name,password lines.
func ReadAccounts(r io.Reader) ([]*Account, error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = 2
	records, err := lines.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("bench: accounts: %w", err)
	}
	all := make([]*Account, len(records))
	for i, rec := range records {
		all[i] = &Account{Name: rec[0], Password: rec[1]}
	}
	return all, nil
}
