package gatewayproc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

var (
	once     sync.Once
	binary   string
	buildErr error
)

// Binary builds cmd/gateway on the first call and returns the path of the executable. HOLDFAST_E2E_BINARY names one
// that is built already. Remove takes it away again.
func Binary() (string, error) {
	once.Do(func() {
		if binary = os.Getenv("HOLDFAST_E2E_BINARY"); binary != "" {
			return
		}
		binary, buildErr = build()
	})
	return binary, buildErr
}

// Remove deletes what Binary built; a TestMain calls it at the end.
func Remove() {
	if binary != "" && os.Getenv("HOLDFAST_E2E_BINARY") == "" {
		_ = os.RemoveAll(filepath.Dir(binary)) // a temporary folder
	}
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-gateway-")
	if err != nil {
		return "", fmt.Errorf("gatewayproc: %w", err)
	}
	out := filepath.Join(dir, "gateway")
	cmd := exec.Command("go", "build", "-o", out, "holdfast/cmd/gateway") //nolint:noctx // go test bounds it
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return out, fmt.Errorf("gatewayproc: building the gateway: %w\n%s", err, strings.TrimSpace(string(text)))
	}
	return out, nil
}
