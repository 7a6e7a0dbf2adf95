{{/* Where pods may run: the fields of a pod's spec that the settings of `cluster` give. */}}
{{- define "mtft.placement" -}}
{{- $pull := list -}}
{{- range .image_pull_secrets -}}{{- $pull = append $pull (dict "name" .) -}}{{- end -}}
{{- $tolerations := list -}}
{{- range .tolerations -}}
  {{- $toleration := dict "operator" "Equal" -}}
  {{- include "mtft.overlay" (list $toleration .) -}}
  {{- $tolerations = append $tolerations (include "mtft.given" $toleration | fromJson) -}}
{{- end -}}
{{- $placement := dict
  "schedulerName" .scheduler
  "priorityClassName" .priority_class
  "serviceAccountName" .service_account
  | include "mtft.given" | fromJson -}}
{{- with $pull -}}{{- $_ := set $placement "imagePullSecrets" . -}}{{- end -}}
{{- with .node_selector -}}{{- $_ := set $placement "nodeSelector" . -}}{{- end -}}
{{- with include "mtft.affinity" .affinity | fromJson -}}{{- $_ := set $placement "affinity" . -}}{{- end -}}
{{- with $tolerations -}}{{- $_ := set $placement "tolerations" . -}}{{- end -}}
{{- include "mtft.json" $placement -}}
{{- end }}

{{- define "mtft.affinity" -}}
{{- $nodes := dict -}}
{{- $required := list -}}
{{- range $key, $values := .required -}}
  {{- $required = append $required (dict "key" $key "operator" "In" "values" $values) -}}
{{- end -}}
{{- $preferred := list -}}
{{- range $key, $values := .preferred -}}
  {{- $expression := dict "key" $key "operator" "In" "values" $values -}}
  {{- $preferred = append $preferred (dict "weight" 1 "preference" (dict "matchExpressions" (list $expression))) -}}
{{- end -}}
{{- with $required -}}
  {{- $terms := dict "nodeSelectorTerms" (list (dict "matchExpressions" .)) -}}
  {{- $_ := set $nodes "requiredDuringSchedulingIgnoredDuringExecution" $terms -}}
{{- end -}}
{{- with $preferred -}}{{- $_ := set $nodes "preferredDuringSchedulingIgnoredDuringExecution" . -}}{{- end -}}
{{- if $nodes -}}{{- dict "nodeAffinity" $nodes | include "mtft.json" -}}{{- else -}}{}{{- end -}}
{{- end }}

{{/* All pods or none: the operator's scheduling policy. */}}
{{- define "mtft.gang" -}}
{{- dict
  "minAvailable" .nodes
  "queue" .gang.queue
  "priorityClass" .gang.priority_class
  "scheduleTimeoutSeconds" .gang.timeout_seconds
  | include "mtft.given" -}}
{{- end }}
