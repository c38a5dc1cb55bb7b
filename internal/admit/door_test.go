package admit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Door
		for range 2 {
			if !d.Join() || d.IsShut() {
				t.Fatal("an open door lets nobody in")
			}
		}
		if !d.Shut() || d.Shut() || !d.IsShut() || d.Join() {
			t.Fatal("a door that is shut lets somebody in")
		}
		d.Bring()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			for range 3 {
				time.Sleep(time.Second)
				d.Leave()
			}
		}()
		begin := time.Now()
		if err := d.Wait(ctx, func() { t.Error("somebody is thrown out who leaves") }, time.Second); err != nil || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		for _, leaves := range []bool{true, false} {
			var d Door
			d.Join()
			d.Shut()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := d.Wait(ctx, func() {
				if leaves {
					d.Leave()
				}
			}, 2*time.Second)
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStay) == leaves {
				t.Errorf("leaves %v: %v", leaves, err)
			}
			if !leaves {
				d.Leave()
			}
		}
	})
}
