{{/*
JSON both ways: one canonical text as mtft/naming.py makes it, and values that any YAML reader takes back unchanged.
*/}}

{{/* The canonical text of a mapping. Read back first, so that every number is a 64-bit float whatever Helm had. */}}
{{- define "mtft.canonical" -}}
{{- . | mustToRawJson | fromJson | mustToRawJson -}}
{{- end }}

{{/*
A value for a manifest: JSON, which is YAML too. What YAML lets stand in no text (delete, C1 controls, byte order mark,
U+FFFE, U+FFFF) or folds (U+0085) is escaped; toYaml would give an empty text for it, without a word.
*/}}
{{- define "mtft.json" -}}
{{- $text := mustToRawJson . -}}
{{- if regexMatch "[\\x{7f}-\\x{9f}\\x{feff}\\x{fffe}\\x{ffff}]" $text -}}
  {{- range $code := concat (untilStep 127 160 1) (list 65279 65534 65535) -}}
    {{- $text = replace (printf "%c" $code) (printf "\\u%04x" $code) $text -}}
  {{- end -}}
{{- end -}}
{{- $text -}}
{{- end }}

{{/* The entries of a mapping for a manifest, one a line. */}}
{{- define "mtft.block" -}}
{{- range $name, $value := . }}
{{ include "mtft.json" $name }}: {{ include "mtft.json" $value }}
{{- end }}
{{- end }}

{{/* Write the second mapping over the first in place: mappings are joined, everything else, null too, is replaced. */}}
{{- define "mtft.overlay" -}}
{{- $values := index . 0 -}}
{{- range $name, $value := index . 1 -}}
  {{- if kindIs "map" $value -}}
    {{- if not (kindIs "map" (get $values $name)) -}}{{- $_ := set $values $name dict -}}{{- end -}}
    {{- include "mtft.overlay" (list (get $values $name) $value) -}}
  {{- else -}}
    {{- $_ := set $values $name $value -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* A mapping without what is null. */}}
{{- define "mtft.given" -}}
{{- $given := dict -}}
{{- range $name, $value := . -}}
  {{- if not (kindIs "invalid" $value) -}}{{- $_ := set $given $name $value -}}{{- end -}}
{{- end -}}
{{- include "mtft.json" $given -}}
{{- end }}

{{/* What is generated from the program: defaults, models, old names, forms of secrets. */}}
{{- define "mtft.facts" -}}
{{- .Files.Get "files/facts.json" -}}
{{- end }}
