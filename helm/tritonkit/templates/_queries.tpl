{{/*
PromQL of files/queries.yaml with its placeholders filled.
Takes: root, query (its name), pods (label matchers), window; optional ensembles (list) and value.
*/}}
{{- define "tritonkit.query" -}}
{{- $queries := .root.Files.Get "files/queries.yaml" | fromYaml -}}
{{- $text := get $queries .query | required (printf "files/queries.yaml has no query %q" .query) -}}
{{- range $name, $other := $queries -}}
{{- $text = replace (printf "  <%s>" $name) (indent 2 $other) $text -}}
{{- end -}}
{{- $clients := "" -}}
{{- with .ensembles -}}{{- $clients = printf ",model!~%q" (join "|" .) -}}{{- end -}}
{{- $text | replace "<pods>" .pods | replace "<clients>" $clients | replace "<window>" .window | replace "<value>" (.value | toString) -}}
{{- end -}}

{{/*
Label matchers for the pods of Deployments: takes root and names. A pod is <deployment>-<hash>-<five characters>, whole
because tritonkit.variants refuses names of more than 46 characters: Kubernetes cuts what stands before the five to 58.
The pod of a LeaderWorkerSet that serves is <set>-<number>.
*/}}
{{- define "tritonkit.pods" -}}
{{- $sets := list -}}
{{- range $w := include "tritonkit.variants" .root | fromYamlArray -}}
{{- if include "tritonkit.spansNodes" (dict "root" $.root "w" $w) -}}{{- $sets = append $sets $w.name -}}{{- end -}}
{{- end -}}
{{- $deployments := list -}}
{{- $leaders := list -}}
{{- range .names -}}
{{- if has . $sets -}}{{- $leaders = append $leaders . -}}{{- else -}}{{- $deployments = append $deployments . -}}{{- end -}}
{{- end -}}
{{- $forms := list -}}
{{- with $deployments -}}{{- $forms = append $forms (printf "(%s)-[a-z0-9]+-[a-z0-9]{5}" (join "|" .)) -}}{{- end -}}
{{- with $leaders -}}{{- $forms = append $forms (printf "(%s)-[0-9]+" (join "|" .)) -}}{{- end -}}
{{- printf "namespace=%q,pod=~%q" .root.Release.Namespace (join "|" $forms) -}}
{{- end -}}
