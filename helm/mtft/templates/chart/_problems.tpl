{{/* What is wrong with the settings of this folder, as a JSON list. Takes the root and the plan. */}}
{{- define "mtft.chartProblems" -}}
{{- $problems := list -}}
{{- $plan := index . 1 -}}
{{- $chart := $plan.chart -}}
{{- $schedule := $chart.schedule -}}
{{- /* The pod of `helm test` mounts the shared root, whatever the models say. */ -}}
{{- $shared := include "mtft.resolved" (list (include "mtft.facts" (index . 0) | fromJson) $plan.document) | fromJson -}}
{{- $problems = concat $problems (include "mtft.rootProblems" $shared.storage.root | fromJsonArray) -}}
{{- if and $chart.service_account (not (include "mtft.accounts" $plan | fromJsonArray)) -}}
  {{- $problems = append $problems "chart.service_account: is true, but cluster.service_account names no account; set cluster.service_account=NAME" -}}
{{- end -}}
{{- range $job := ternary $plan.jobs list $chart.service_account -}}
  {{- if eq ($job.cluster.service_account | default "") "default" -}}
    {{- $path := include "mtft.clusterPath" (list $plan.document $job.model "service_account") -}}
    {{- $problems = append $problems (printf "%s: got default, which every namespace has already, so chart.service_account=true cannot make it; give another name, or leave out chart.service_account" $path) -}}
  {{- end -}}
{{- end -}}
{{- $launcher := $schedule.service_account | default (include "mtft.chartName" (list (index . 0) "launcher")) -}}
{{- range $job := ternary $plan.jobs list (not (empty $schedule.cron)) -}}
  {{- if eq $launcher ($job.cluster.service_account | default "default") -}}
    {{- $path := include "mtft.clusterPath" (list $plan.document $job.model "service_account") -}}
    {{- $problems = append $problems (printf "%s and chart.schedule.service_account: both are %s; the trainers would have the launcher's rights; give one of them another name" $path $launcher) -}}
  {{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" $schedule.cron) -}}
  {{- $forms := (include "mtft.facts" (index . 0) | fromJson).forms -}}
  {{- $problems = concat $problems (include "mtft.cronProblems" (list $forms $schedule.cron) | fromJsonArray) -}}
{{- end -}}
{{- /* Not Chart.yaml's kubeVersion: without a cluster, a Helm built from source takes it for 1.20. Vendors write 1.27.3-name. */ -}}
{{- $version := (index . 0).Capabilities.KubeVersion.Version -}}
{{- if and $schedule.cron (include "mtft.live" (index . 0)) (not (semverCompare ">=1.27.0-0" $version)) -}}
  {{- $problems = append $problems (printf "chart.schedule: needs Kubernetes 1.27, which knows the time zone of a CronJob; the cluster has %s" $version) -}}
{{- end -}}
{{- range $field := list "suspend" "wait" -}}
  {{- if and (get $schedule $field) (not $schedule.cron) -}}
    {{- $problems = append $problems (printf "chart.schedule.%s: there is no schedule; set chart.schedule.cron, such as \"0 2 * * 0\"" $field) -}}
  {{- end -}}
{{- end -}}
{{- if eq (lower $schedule.time_zone) "local" -}}
  {{- $problems = append $problems (printf "chart.schedule.time_zone: got %s, which Kubernetes refuses; allowed: a name of the IANA time zone database, such as Europe/Paris" $schedule.time_zone) -}}
{{- end -}}
{{- if and $schedule.cron $schedule.wait (eq $chart.claim.access_mode "ReadWriteOnce") -}}
  {{- $problems = append $problems "chart.schedule.wait: the waiting launcher would hold the volume, which chart.claim.access_mode ReadWriteOnce gives to pods of one node at a time, so the trainer might never start; leave out wait, or give ReadWriteMany" -}}
{{- end -}}
{{- $claims := dict -}}
{{- range $job := ternary $plan.jobs list (not (empty $schedule.cron)) -}}
  {{- $root := clean $job.storage.root -}}
  {{- $other := get $claims $root | default $job.cluster.claim -}}
  {{- if ne $other $job.cluster.claim -}}
    {{- $problems = append $problems (printf "models.%s.cluster.claim: %s is mounted at %s, where the launcher of chart.schedule mounts %s; give it another storage.root" $job.model $job.cluster.claim $root $other) -}}
  {{- end -}}
  {{- $_ := set $claims $root $other -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/*
A cron that Kubernetes refuses: of another form (what looks like a secret is told anyway), or with a range that goes
backwards, which no pattern can tell. Takes the forms and the cron.
*/}}
{{- define "mtft.cronProblems" -}}
{{- $forms := index . 0 -}}
{{- $cron := index . 1 -}}
{{- $formed := regexMatch $forms.cron.pattern $cron -}}
{{- $numbers := dict "SUN" 0 "MON" 1 "TUE" 2 "WED" 3 "THU" 4 "FRI" 5 "SAT" 6 -}}
{{- range $index, $month := list "JAN" "FEB" "MAR" "APR" "MAY" "JUN" "JUL" "AUG" "SEP" "OCT" "NOV" "DEC" -}}
  {{- $_ := set $numbers $month (add1 $index) -}}
{{- end -}}
{{- $problems := list -}}
{{- if not (or $formed (regexMatch $forms.secret_value $cron)) -}}
  {{- $problems = append $problems (printf "chart.schedule.cron: has the wrong form; got %q; allowed: %s" $cron $forms.cron.allowed) -}}
{{- end -}}
{{- range $range := ternary (regexFindAll "[0-9A-Za-z]+-[0-9A-Za-z]+" $cron -1) list $formed -}}
  {{- $ends := list -}}
  {{- range $end := splitList "-" $range -}}
    {{- $ends = append $ends (ternary (get $numbers (upper $end)) (atoi $end) (hasKey $numbers (upper $end))) -}}
  {{- end -}}
  {{- if gt (index $ends 0 | int) (index $ends 1 | int) -}}
    {{- $problems = append $problems (printf "chart.schedule.cron: range %s goes backwards; allowed: its smaller end first" $range) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}
