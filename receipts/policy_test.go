package receipts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/caarlos0/env/v11"

	"holdfast/receipts"
)

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        []receipts.Proof
		err         string
	}{
		{name: "all", value: "receipt,marker,ack", want: []receipts.Proof{receipts.ByReceipt, receipts.ByMarker, receipts.ByAck}},
		{name: "one", value: "receipt", want: []receipts.Proof{receipts.ByReceipt}},
		{name: "spaces", value: "receipt, ack", want: []receipts.Proof{receipts.ByReceipt, receipts.ByAck}},
		{name: "without receipt", value: "marker,ack", err: "must contain receipt"},
		{name: "twice", value: "receipt,receipt", err: "named twice"},
		{name: "unknown", value: "receipt,smoke", err: `"smoke" is none of`},
		{name: "empty item", value: "receipt,", err: `"" is none of`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := receipts.DefaultConfig()
			err := env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{"RECEIPTS_PROOF": tt.value}})
			if err == nil {
				err = cfg.Validate()
			}
			switch {
			case tt.err == "" && err != nil:
				t.Fatal(err)
			case tt.err == "" && !slices.Equal(cfg.Proof, tt.want):
				t.Fatalf("Proof = %v, want %v", cfg.Proof, tt.want)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "RECEIPTS_PROOF")):
				t.Fatalf("error %v, want one with RECEIPTS_PROOF and %q", err, tt.err)
			}
		})
	}
	if err := receipts.DefaultConfig().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
}

func TestProofText(t *testing.T) {
	for _, p := range receipts.DefaultConfig().Proof {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back receipts.Proof
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%s: %v, %v", text, back, err)
		}
	}
}
