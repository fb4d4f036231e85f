// Stories uses the driver as the users of a cluster do, and as those who run one, and
// sees that each story ends well.
//
//	stories [-run REGEXP] [-parallel 4] [-chart DIR [-values FILE]] [-image REF] [-keep]
//
// KUBECONFIG names the cluster. The driver is there already, with the StorageClasses of
// values.yaml, or -chart installs it, which takes helm. Each story has a namespace of
// its own, which is removed behind it. Those that would disturb others run one after the
// other in the end; the last takes the driver away again.
//
// Some stories need to do more to nodes than an API server can: E2E_EXEC, E2E_POWER_CUT
// and E2E_BOOT are commands to which a node's name is added, and for the first what is to
// be run there as root. A story that lacks what it needs is skipped, and says what it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// settings are what the command line says.
type settings struct {
	run      *regexp.Regexp
	parallel int
	chart    string
	values   string
	image    string
	keep     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := tell(ctx, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "stories:", err)
		os.Exit(1)
	}
}

// tell tells the stories that args ask for.
func tell(ctx context.Context, args []string) error {
	set, err := parse(args)
	if err != nil {
		return err
	}
	c, err := connect(ctx, set)
	if err != nil {
		return err
	}
	if set.chart != "" {
		if err := c.install(ctx); err != nil {
			return err
		}
	}
	if err := c.lookAround(ctx); err != nil {
		return err
	}
	t := &telling{cluster: c, settings: set}
	return t.all(ctx, stories)
}

func parse(args []string) (set settings, err error) {
	flags := flag.NewFlagSet("stories", flag.ContinueOnError)
	pattern := flags.String("run", "", "`regexp` of the stories that are told; none is all")
	flags.IntVar(&set.parallel, "parallel", 4, "`number` of stories at once")
	flags.StringVar(&set.chart, "chart", "", "`directory` of the chart to install; none is a driver that is there")
	flags.StringVar(&set.values, "values", "", "`file` of the chart's values, instead of those of the stories")
	flags.StringVar(&set.image, "image", podImage(), "`image` of the stories' pods: a shell, coreutils and util-linux")
	flags.BoolVar(&set.keep, "keep", false, "leave the namespaces of stories that fail")
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	if flags.NArg() > 0 {
		return set, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	if set.parallel < 1 {
		return set, fmt.Errorf("-parallel %d", set.parallel)
	}
	set.run, err = regexp.Compile(*pattern)
	return set, err
}

// podImage is one that the nodes have: those of the cluster beside the stories can
// download none.
func podImage() string {
	if os.Getenv("E2E_EXEC") != "" {
		return "localhost/e2e:1"
	}
	return "debian:bookworm-slim"
}
