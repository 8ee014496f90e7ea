// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/sandbox/internal/place"
)

// Catalog is every image that can be made, from the sources and the cache.
type Catalog struct {
	Store   Store
	recipes map[string]Recipe
}

// Services are the third-party images' names, the quickest to make first.
var Services = []string{"openbao", "nats", "postgresql", "keycloak"}

// Programs returns the names of the project's own images.
func Programs() []string { return slices.Sorted(maps.Keys(programs)) }

// Open returns the catalog of the repository that the process runs in.
func Open() (*Catalog, error) {
	root, err := place.Root()
	if err != nil {
		return nil, err
	}
	cache, err := place.Cache()
	if err != nil {
		return nil, err
	}
	c := &Catalog{Store: Store{Dir: filepath.Join(cache, "images")}, recipes: map[string]Recipe{}}
	for _, r := range []Recipe{PostgreSQL(), OpenBao(), NATS(root), Keycloak()} {
		c.recipes[r.Name()] = r
	}
	for name := range programs {
		c.recipes[name] = Program(name, root, filepath.Join(cache, "build"))
	}
	return c, nil
}

// Recipe returns how the named image is made.
func (c *Catalog) Recipe(name string) (Recipe, error) {
	r, ok := c.recipes[name]
	if !ok {
		return nil, fmt.Errorf("no image is called %q: choose from %s", name, strings.Join(slices.Sorted(maps.Keys(c.recipes)), ", "))
	}
	return r, nil
}

// Command is "sandbox image".
func Command() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Make container images without a container engine", Args: cobra.NoArgs}
	cmd.AddCommand(buildCommand(), listCommand())
	return cmd
}

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [NAME...]",
		Short: "Make images (all of them when none is named) and print their archives",
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := Open()
			if err != nil {
				return err
			}
			if len(names) == 0 {
				names = append(slices.Clone(Services), Programs()...)
			}
			recipes := make([]Recipe, len(names))
			for i, name := range names {
				if recipes[i], err = c.Recipe(name); err != nil {
					return err
				}
			}
			var built []Built
			for _, r := range recipes {
				b, err := c.Store.Build(cmd.Context(), r, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				built = append(built, b)
			}
			return table(cmd.OutOrStdout(), built)
		},
	}
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images in the cache",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := Open()
			if err != nil {
				return err
			}
			built, err := c.Store.List()
			if err != nil {
				return err
			}
			return table(cmd.OutOrStdout(), built)
		},
	}
}

func table(out io.Writer, built []Built) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "IMAGE\tCONTENT TAG\tSIZE\tARCHIVE")
	for _, b := range built {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d MB\t%s\n", b.Ref, b.Content[strings.LastIndexByte(b.Content, ':')+1:], b.Size/1e6, b.Path)
	}
	return w.Flush()
}
