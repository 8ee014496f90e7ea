// SPDX-License-Identifier: Apache-2.0

// Command connector is the connector runtime: `serve` runs roles, `migrate` brings the database up to date, `export` and `import` write
// and read archives, `wait` waits for one of them to be executed beside it, `release` takes back that a participant is held for a move, `version` tells
// the version.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/runtime"
)

const usage = `usage:
  connector serve --roles=control-plane,wallet,data-plane,issuer --config=FILE
  connector migrate --config=FILE
  connector export --config=FILE --to=FILE --recipient=age1… [--context=NAME]… [--hold]
  connector release --config=FILE --context=NAME… --imported-nowhere
  connector import --config=FILE --from=FILE --identity=FILE
  connector wait
  connector version`

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, log, os.Args[1:])
	stop()
	if err != nil {
		log.Error("connector ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	file := flags.String("config", "/etc/kaphera/config.yaml", "configuration file")
	roles := flags.String("roles", "", "roles to run, separated by commas")
	var a archiveFlags
	a.register(flags)
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "version":
		fmt.Println(version())
		return nil
	case "wait":
		<-ctx.Done()
		return nil
	case "migrate":
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		if err := runtime.Migrate(ctx, cfg); err != nil {
			return err
		}
		log.Info("the database is up to date", "host", cfg.Database.Host, "database", cfg.Database.Name)
		return nil
	case "serve":
		list, err := runtime.ParseRoles(*roles)
		if err != nil {
			return fmt.Errorf("--roles: %w", err)
		}
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		return runtime.Run(ctx, runtime.Options{Config: cfg, Roles: list, Log: log})
	}
	if run := map[string]func(context.Context, *slog.Logger, config.Config, archiveFlags) error{"export": export, "import": restore, "release": release}[args[0]]; run != nil {
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		return run(ctx, log, cfg, a)
	}
	return fmt.Errorf("unknown command %q\n%s", args[0], usage)
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return s.Value
		}
	}
	return info.Main.Version
}
