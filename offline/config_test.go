package offline_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"holdfast/offline"
)

func TestConfig(t *testing.T) {
	if err := offline.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (offline.Config{}).Validate(); err != nil { // everything lifted
		t.Error(err)
	}
	cfg := offline.DefaultConfig()
	err := env.ParseWithOptions(&cfg, env.Options{Prefix: "HOLDFAST_", Environment: map[string]string{
		"HOLDFAST_OFFLINE_LIMIT": "7", "HOLDFAST_OFFLINE_STORE_BODILESS": "true", "HOLDFAST_OFFLINE_LIFETIME": "72h",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Limit != 7 || !cfg.StoreBodiless || cfg.Lifetime != 72*time.Hour || cfg.UserLimit != 10_000 {
		t.Errorf("parsed %+v", cfg)
	}
	// Every setting that can be negative is refused by its name.
	v := reflect.ValueOf(&cfg).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !v.Field(i).CanInt() {
			continue
		}
		bad := offline.DefaultConfig()
		reflect.ValueOf(&bad).Elem().Field(i).SetInt(-1)
		name := field.Tag.Get("env")
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=-1: %v", name, err)
		}
		if field.Tag.Get("desc") == "" {
			t.Errorf("%s has no description", name)
		}
	}
}
