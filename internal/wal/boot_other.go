//go:build unix && !linux && !darwin

package wal

import "errors"

func readBootID() (string, error) { return "", errors.ErrUnsupported }
