// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// migrateAgain is how long a failed migration rests before it is tried again.
const migrateAgain = 15 * time.Second

// Migrate runs the migration Job to its end and removes the Jobs of earlier configurations. A failed one is tried again for as long
// as it is asked for; its last words stay in DatabaseReady meanwhile. before is DatabaseReady as it was.
func (r *Runner) Migrate(ctx context.Context, rt *workload.Runtime, before *metav1.Condition) error {
	want := rt.MigrateJob()
	var job batchv1.Job
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(want), &job)
	switch {
	case apierrors.IsNotFound(err):
		if err := r.Apply(ctx, want); err != nil {
			return err
		}
		return running(before, "Job %s/%s brings the database %s up to date", want.Namespace, want.Name, rt.Database.Name)
	case err != nil:
		return fmt.Errorf("read Job %s/%s: %w", want.Namespace, want.Name, err)
	case finished(&job, batchv1.JobComplete) != nil:
		return r.pruneJobs(ctx, rt, want.Name)
	case finished(&job, batchv1.JobFailed) != nil:
		return r.failed(ctx, rt, &job, finished(&job, batchv1.JobFailed))
	}
	problem, err := r.podProblem(ctx, job.Namespace, map[string]string{batchv1.JobNameLabel: job.Name})
	if err != nil {
		return err
	}
	if problem != "" {
		return outcome.Waiting(RetryLate, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonMigrationFailed, "the migration cannot start: %s", problem)
	}
	return running(before, "Job %s/%s brings the database %s up to date", job.Namespace, job.Name, rt.Database.Name)
}

// running keeps the words of the last failure until the next attempt has ended.
func running(before *metav1.Condition, format string, args ...any) error {
	if before != nil && before.Reason == v1alpha1.ReasonMigrationFailed {
		return outcome.Waiting(RetrySoon, before.Type, before.Reason, "%s", before.Message)
	}
	return outcome.Waiting(RetrySoon, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonMigrationRunning, format, args...)
}

func (r *Runner) failed(ctx context.Context, rt *workload.Runtime, job *batchv1.Job, why *batchv1.JobCondition) error {
	pods, err := r.pods(ctx, job.Namespace, map[string]string{batchv1.JobNameLabel: job.Name})
	if err != nil {
		return err
	}
	text := why.Message
	for i := range pods {
		if said := lastWords(&pods[i]); said != "" {
			text = said
			break
		}
	}
	message := fmt.Sprintf("database %s at %s:%d: %s (tried again every %s)", rt.Database.Name, rt.Database.Host, rt.Database.Port, text, migrateAgain)
	rest := migrateAgain - r.Now().Sub(why.LastTransitionTime.Time)
	if rest <= 0 {
		if err := r.Delete(ctx, job); err != nil {
			return err
		}
		rest = RetrySoon
	}
	return outcome.Waiting(rest, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonMigrationFailed, "%s", message)
}

func (r *Runner) pruneJobs(ctx context.Context, rt *workload.Runtime, keep string) error {
	var jobs batchv1.JobList
	if err := r.Client.List(ctx, &jobs, client.InNamespace(rt.Namespace), client.MatchingLabels(rt.Selector(workload.Migrate))); err != nil {
		return fmt.Errorf("list migration Jobs: %w", err)
	}
	for i := range jobs.Items {
		if jobs.Items[i].Name != keep {
			if err := r.Delete(ctx, &jobs.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func finished(job *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i, c := range job.Status.Conditions {
		if c.Type == kind && c.Status == corev1.ConditionTrue {
			return &job.Status.Conditions[i]
		}
	}
	return nil
}

// lastWords returns why a Pod's container ended: the last line it wrote, and of a JSON log line its error.
func lastWords(pod *corev1.Pod) string {
	for _, cs := range pod.Status.ContainerStatuses {
		for _, t := range []*corev1.ContainerStateTerminated{cs.State.Terminated, cs.LastTerminationState.Terminated} {
			if t == nil || t.ExitCode == 0 {
				continue
			}
			if line := lastLine(t.Message); line != "" {
				return line
			}
			return fmt.Sprintf("ended with exit code %d (%s)", t.ExitCode, t.Reason)
		}
	}
	return ""
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	var record map[string]any
	if json.Unmarshal([]byte(line), &record) == nil {
		for _, key := range []string{"error", "err", "msg"} {
			if s, ok := record[key].(string); ok && s != "" {
				return s
			}
		}
	}
	return line
}

// Migrated sets DatabaseReady.
func Migrated(o outcome.Object, rt *workload.Runtime) {
	was := meta.FindStatusCondition(*o.GetConditions(), v1alpha1.ConditionDatabaseReady)
	if was != nil && was.Reason == v1alpha1.ReasonDatabaseRefused {
		return // a role says so; Workloads clears it
	}
	outcome.True(o, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonMigrated,
		fmt.Sprintf("database %s at %s:%d is up to date", rt.Database.Name, rt.Database.Host, rt.Database.Port))
}
