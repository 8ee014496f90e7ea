// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Status is a cluster as it is now.
type Status struct {
	Info
	State      string         // "running", "degraded" or "stopped"
	Reason     string         // what is wrong, in words
	Components map[string]int // resident bytes by component; 0 when it does not run
	Memory     int            // their sum
}

// List tells the state of every cluster on this machine.
func List(ctx context.Context) ([]Status, error) {
	all, err := clusters()
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(all))
	for _, s := range all {
		one, err := status(ctx, s)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func status(ctx context.Context, s state) (Status, error) {
	l, err := newLayout(s.Name)
	if err != nil {
		return Status{}, err
	}
	running, err := l.processes()
	if err != nil {
		return Status{}, err
	}
	st := Status{Info: info(l, &s), State: "running", Components: map[string]int{}}
	var dead []string
	for _, c := range components(l, &s, "", "", "") {
		p, ok := running[c.name]
		st.Components[c.name] = 0
		if !ok || !p.alive() {
			dead = append(dead, c.name)
			continue
		}
		st.Components[c.name] = resident(p.PID)
		st.Memory += st.Components[c.name]
	}
	switch {
	case len(dead) == len(st.Components):
		st.State, st.Reason = "stopped", "nothing of it runs; `sandbox up "+s.Name+"` starts it again"
		return st, nil
	case len(dead) > 0:
		slices.Sort(dead)
		st.State, st.Reason = "degraded", strings.Join(dead, ", ")+" not running; `sandbox up "+s.Name+"` repairs it"
		return st, nil
	}
	client, err := newClient(l)
	if err != nil {
		return st, err
	}
	for _, check := range []func(context.Context) error{client.apiReady, client.nodeReady(s.Name, time.Time{})} {
		if err := check(ctx); err != nil {
			st.State, st.Reason = "degraded", err.Error()
		}
	}
	return st, nil
}

// resident is a process's memory in bytes, 0 when it cannot be read.
func resident(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(data))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}
