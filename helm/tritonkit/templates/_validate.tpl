{{/* What cannot work is refused here, with where, what and the fix. */}}

{{- define "tritonkit.checkRelease" -}}
{{- if not .Values.enabled -}}
{{- include "tritonkit.fail" (dict "where" "enabled" "what" "false, and only a parent chart's condition leaves this chart out" "fix" (printf "in the parent's Chart.yaml, give the dependency `condition: %s.enabled`; without a parent, leave it out" .Chart.Name)) -}}
{{- end -}}
{{- include "tritonkit.checkOutside" . -}}
{{- include "tritonkit.checkVariants" . -}}
{{- if and .Values.serviceAccount.annotations (not .Values.serviceAccount.create) -}}
{{- include "tritonkit.fail" (dict "where" "serviceAccount.annotations" "what" "set, but serviceAccount.create is false" "fix" "annotate the ServiceAccount yourself, or let the chart make it") -}}
{{- end -}}
{{- if and .Values.admin.existingSecret (not .Values.admin.enabled) -}}
{{- include "tritonkit.fail" (dict "where" "admin.existingSecret" "what" "set, but admin.enabled is false, so nothing asks for the key" "fix" "set admin.enabled=true, or leave the Secret out") -}}
{{- end -}}
{{- if and .Values.admin.enabled .Values.tests.enabled -}}
{{- range $api := list "metadata" "inference" "model-config" "statistics" -}}
{{- if has $api $.Values.admin.restrict -}}
{{- include "tritonkit.fail" (dict "where" "admin.restrict" "what" (printf "helm test asks for %s, and has no key" $api) "fix" "leave it out, or set tests.enabled=false") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Callers from outside come with their own address or a node's: a pod selector never matches them. */ -}}
{{- define "tritonkit.checkOutside" -}}
{{- range $protocol := list "http" "grpc" -}}
{{- include "tritonkit.checkService" (dict "root" $ "protocol" $protocol) -}}
{{- end -}}
{{- $open := .Values.networkPolicy.ingress.extra -}}
{{- range .Values.networkPolicy.ingress.clients -}}{{- if hasKey . "ipBlock" -}}{{- $open = append $open . -}}{{- end -}}{{- end -}}
{{- range $protocol := list "http" "grpc" -}}
{{- $own := (get $.Values.service $protocol).type -}}
{{- $type := default $.Values.service.type $own -}}
{{- if and (ne $type "ClusterIP") $.Values.networkPolicy.enabled (not $open) -}}
{{- include "tritonkit.fail" (dict "where" (ternary (printf "service.%s.type" $protocol) "service.type" (ne $own "")) "what" (printf "%s leads callers from outside here, and the NetworkPolicy lets pods in only" $type) "fix" "add their addresses (and the nodes', unless the load balancer keeps callers' own) to networkPolicy.ingress.clients: [{ipBlock: {cidr: …}}]") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What Kubernetes refuses of a Service: takes root and protocol. */ -}}
{{- define "tritonkit.checkService" -}}
{{- $own := get .root.Values.service .protocol -}}
{{- $type := default .root.Values.service.type $own.type -}}
{{- $at := printf "service.%s" .protocol -}}
{{- range $field := list "nodePort" "externalTrafficPolicy" "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" -}}
{{- $needed := ternary (list "LoadBalancer") (list "NodePort" "LoadBalancer") (hasPrefix "loadBalancer" $field) -}}
{{- if and (get $own $field) (not (has $type $needed)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.%s" $at $field) "what" (printf "set, but the Service's type is %s" $type) "fix" (printf "set %s.type=%s, or leave it out" $at (last $needed))) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (len $own.ipFamilies) 2) (eq (default "SingleStack" $own.ipFamilyPolicy) "SingleStack") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.ipFamilies" $at) "what" "two families, and a Service has one unless its policy says otherwise" "fix" (printf "set %s.ipFamilyPolicy=PreferDualStack, or keep one" $at)) -}}
{{- end -}}
{{- $version := .root.Capabilities.KubeVersion.Version -}}
{{- $least := ternary "1.31" "1.34" (eq $own.trafficDistribution "PreferClose") -}}
{{- if and $own.trafficDistribution (semverCompare (printf "<%s.0-0" $least) $version) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.trafficDistribution" $at) "what" (printf "%s needs Kubernetes %s, and this is %s" $own.trafficDistribution $least $version) "fix" "use PreferClose, from 1.31 on, or leave it out") -}}
{{- end -}}
{{- end -}}

{{- /* What all variants share must fit all of them. */ -}}
{{- define "tritonkit.checkVariants" -}}
{{- range $name := list "weights" "shadow.variant" -}}
{{- if and (not $.Values.gateway.enabled) (ternary $.Values.gateway.weights $.Values.gateway.shadow.variant (eq $name "weights")) -}}
{{- include "tritonkit.fail" (dict "where" (printf "gateway.%s" $name) "what" "set, but gateway.enabled is false, and only a Gateway shares out or copies requests" "fix" "set gateway.enabled=true, or leave it out") -}}
{{- end -}}
{{- end -}}
{{- $ports := dict -}}
{{- range $w := include "tritonkit.variants" . | fromYamlArray -}}
{{- $own := include "tritonkit.podPorts" (dict "root" $ "w" $w) | fromYaml -}}
{{- $own = printf "http %v, grpc %v" $own.http $own.grpc -}}
{{- if ne $w.variant $.Values.gateway.shadow.variant -}}{{- $_ := set $ports $own $w.variant -}}{{- end -}}
{{- end -}}
{{- if and .Values.service.headless (gt (len $ports) 1) -}}
{{- include "tritonkit.fail" (dict "where" "service.headless" "what" (printf "DNS leads to pods of all variants, whose ports differ: %s" (keys $ports | sortAlpha | join "; ")) "fix" "give the variants the same front.enabled, front.httpPort, front.grpcPort, server.httpPort and server.grpcPort, or set service.headless=false") -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkWorkload" -}}
{{- $at := ternary (printf "variants.%s." .w.variant) "" (ne .w.variant "") -}}
{{- $c := merge (dict "at" $at) . -}}
{{- include "tritonkit.checkModels" $c -}}
{{- include "tritonkit.checkImage" $c -}}
{{- include "tritonkit.checkEngine" $c -}}
{{- include "tritonkit.checkWeights" $c -}}
{{- include "tritonkit.checkNodes" $c -}}
{{- include "tritonkit.checkEngines" $c -}}
{{- include "tritonkit.checkAccelerator" $c -}}
{{- include "tritonkit.checkMemory" $c -}}
{{- include "tritonkit.checkServer" $c -}}
{{- include "tritonkit.checkExtras" $c -}}
{{- end -}}

{{- define "tritonkit.checkModels" -}}
{{- $m := .w.values.models -}}
{{- $given := list -}}
{{- if $m.uri }}{{ $given = append $given "models.uri" }}{{ end -}}
{{- if $m.pvc.claimName }}{{ $given = append $given "models.pvc.claimName" }}{{ end -}}
{{- if $m.nfs.server }}{{ $given = append $given "models.nfs.server" }}{{ end -}}
{{- if $m.image.reference }}{{ $given = append $given "models.image.reference" }}{{ end -}}
{{- if not $given -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels" .at) "what" "nothing says where the models are" "fix" "set models.uri (`tritonkit publish` prints it), models.pvc.claimName, models.nfs.server or models.image.reference") -}}
{{- end -}}
{{- if gt (len $given) 1 -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels" .at) "what" (printf "%s are all set" (join " and " $given)) "fix" "keep one; in a variant, empty the other with \"\"") -}}
{{- end -}}
{{- if and $m.uri (not (regexMatch "^(s3|gs|as)://.+" $m.uri)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.uri" .at) "what" (printf "%s is no object store that Triton reads" $m.uri) "fix" "begin it with s3://, gs:// or as://; use models.pvc or models.nfs for files") -}}
{{- end -}}
{{- if and $m.nfs.server (not (hasPrefix "/" $m.nfs.path)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.nfs.path" .at) "what" (printf "%q is not an absolute path" $m.nfs.path) "fix" "name the exported folder, beginning with /") -}}
{{- end -}}
{{- if and $m.credentials.gcsKey (not $m.credentials.existingSecret) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.credentials.existingSecret" .at) "what" "models.credentials.gcsKey names a key of a Secret, but no Secret is named" "fix" "name it") -}}
{{- end -}}
{{- if and $m.credentials.existingSecret (not $m.uri) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.credentials.existingSecret" .at) "what" "credentials are for an object store, and models.uri is empty" "fix" "leave the Secret out, or set models.uri") -}}
{{- end -}}
{{- if and $m.credentials.gcsKey (not (hasPrefix "gs://" $m.uri)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.credentials.gcsKey" .at) "what" (printf "a Google key file cannot open %s" $m.uri) "fix" "leave gcsKey out: the keys of existingSecret become environment variables") -}}
{{- end -}}
{{- if and $m.names $m.ready -}}
{{- range $m.ready -}}
{{- if not (has . $m.names) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.ready" $.at) "what" (printf "%s is not in models.names, so it is never loaded and no pod gets ready" .) "fix" "add it to models.names") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $m.image.reference -}}{{- include "tritonkit.checkImageVolume" . -}}{{- end -}}
{{- end -}}

{{- /* Models that need what their image is known not to have: NVIDIA's, or the tools', which stands in for it. */ -}}
{{- define "tritonkit.checkImage" -}}
{{- $needs := include "tritonkit.needs" . | fromYaml -}}
{{- $image := include "tritonkit.tritonImage" . -}}
{{- $stock := regexMatch "(^|/)nvidia/tritonserver[:@]" $image -}}
{{- range $model, $words := $needs -}}
{{- if $stock -}}
{{- $fix := ternary "leave image.repository, tag and digest empty, so that tools.image serves" "serve it in a variant without engine" (empty $.w.values.engine) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%simage" $.at) "what" (printf "%s needs %s (models.needs), which %s does not have" $model (join ", " $words) $image) "fix" (printf "%s, or name an image of yours that has it" $fix)) -}}
{{- end -}}
{{- range $word := $words -}}
{{- if and (not $.w.values.image.repository) (not (has $word (include "tritonkit.toolsHas" $ | fromYamlArray))) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.needs" $.at) "what" (printf "%s needs %s, which neither NVIDIA's image nor that of build/Dockerfile has" $model $word) "fix" (printf "make an image (FROM that of build/Dockerfile, RUN python3 -m pip install %s) and name it in image.repository and image.tag" $word)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkImageVolume" -}}
{{- $version := .root.Capabilities.KubeVersion.Version -}}
{{- $least := ternary "1.33" "1.35" .w.values.models.image.allowBeta -}}
{{- if semverCompare (printf "<%s.0-0" $least) $version -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.image.reference" .at) "what" (printf "image volumes need Kubernetes %s, and this is %s" $least $version) "fix" "use models.uri or models.pvc; on 1.33 and 1.34 with the ImageVolume feature on, set models.image.allowBeta=true") -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkEngines" -}}
{{- $v := .w.values -}}
{{- $builds := ne $v.engineBuild.mode "off" -}}
{{- if and $builds (eq $v.accelerator.kind "cpu") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengineBuild.mode" .at) "what" (printf "%s, but engines are of GPUs, and accelerator.kind is cpu" $v.engineBuild.mode) "fix" "set engineBuild.mode=off, or another accelerator.kind") -}}
{{- end -}}
{{- if and (or $builds (and $v.engineBuild.checkPassports $v.models.uri)) (eq (toString $v.models.fetch) "false") -}}
{{- $fix := ternary "leave it auto" "leave it auto, or set engineBuild.checkPassports=false" $builds -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.fetch" .at) "what" (printf "false, but %s on a copy of the repository" (ternary "engines are built" "passports are checked" $builds)) "fix" $fix) -}}
{{- end -}}
{{- $cache := $v.engineBuild.cache -}}
{{- if and $cache.existingClaim $cache.size -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengineBuild.cache" .at) "what" "existingClaim and size are both set" "fix" "keep existingClaim for a claim that is there, size for one that the chart makes") -}}
{{- end -}}
{{- if and (eq $v.engineBuild.mode "job") (not (or $cache.existingClaim $cache.size)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengineBuild.cache" .at) "what" "mode job builds into a cache that pods read, and there is none" "fix" "set engineBuild.cache.size or existingClaim, or mode=init") -}}
{{- end -}}
{{- if and (eq $v.engineBuild.mode "job") (gt (len $v.accelerator.products) 1) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.products" .at) "what" (printf "the Job builds on one GPU, and pods on the others of %s would wait in vain" (join ", " $v.accelerator.products)) "fix" "make one variant for each product, or set engineBuild.mode=init") -}}
{{- end -}}
{{- $many := or (gt (int $v.replicas) 1) (eq (include "tritonkit.scaled" .) "true") (eq $v.engineBuild.mode "job") (eq $v.rollout.profile "surge") -}}
{{- if and $cache.size (eq $cache.accessMode "ReadWriteOnce") $many -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengineBuild.cache.accessMode" .at) "what" "several pods use the cache (more replicas, a surge or a Job), and ReadWriteOnce ties it to one node" "fix" "set ReadWriteMany with a StorageClass that offers it, or rollout.profile=recreate with one replica and mode=init") -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkAccelerator" -}}
{{- $a := .w.values.accelerator -}}
{{- if and (eq $a.kind "mig") (not $a.mig.profile) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.mig.profile" .at) "what" "accelerator.kind is mig, and no profile is named" "fix" "name one that the nodes offer, such as 1g.10gb") -}}
{{- end -}}
{{- if and $a.mig.profile (ne $a.kind "mig") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.mig.profile" .at) "what" (printf "set, but accelerator.kind is %s" $a.kind) "fix" "set accelerator.kind=mig, or leave the profile out") -}}
{{- end -}}
{{- if and (has $a.kind (list "timeSliced" "mps")) (gt (int $a.count) 1) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.count" .at) "what" "two shares of shared GPUs give no more compute than one, and may be of one GPU" "fix" "set 1") -}}
{{- end -}}
{{- if and (eq $a.kind "dra") (ne $a.productLabel "nvidia.com/gpu.product") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.productLabel" .at) "what" (printf "%s, but a claim by DRA asks for the device's product, not for a node's label" $a.productLabel) "fix" "leave it out, or name the nodes in scheduling.nodeSelector") -}}
{{- end -}}
{{- if and (eq $a.kind "cpu") $a.products -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.products" .at) "what" "set, but accelerator.kind is cpu" "fix" "leave products empty (in a variant: []), or set accelerator.kind=gpu") -}}
{{- end -}}
{{- if and (eq $a.kind "dra") (semverCompare "<1.34.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.kind" .at) "what" (printf "dra needs resource.k8s.io/v1 of Kubernetes 1.34, and this is %s" .root.Capabilities.KubeVersion.Version) "fix" "use the device plugin: accelerator.kind=gpu") -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkMemory" -}}
{{- $v := .w.values -}}
{{- $shm := include "tritonkit.bytes" (dict "quantity" $v.sharedMemory.size "where" (printf "%ssharedMemory.size" .at)) | int64 -}}
{{- range $name, $size := dict "models.copySizeLimit" $v.models.copySizeLimit "engineBuild.cache.size" $v.engineBuild.cache.size -}}
{{- with $size -}}{{- $_ := include "tritonkit.bytes" (dict "quantity" . "where" (printf "%s%s" $.at $name)) -}}{{- end -}}
{{- end -}}
{{- range $where, $resources := dict "resources" $v.resources "engineBuild.resources" $v.engineBuild.resources "tools.resources" $v.tools.resources "front.resources" $v.front.resources -}}
{{- $sizes := dict -}}
{{- range $part := list "requests" "limits" -}}
{{- $own := default dict (get $resources $part) -}}
{{- with get $own "memory" -}}
{{- $_ := set $sizes $part (include "tritonkit.bytes" (dict "quantity" . "where" (printf "%s%s.%s.memory" $.at $where $part)) | int64) -}}
{{- end -}}
{{- range $resource, $count := $own -}}
{{- if hasPrefix "nvidia.com/" $resource -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s%s.%s" $.at $where $part) "what" (printf "%s: %v, but GPUs are of accelerator, which gives each container what it needs" $resource $count) "fix" "leave it out, and set accelerator.count; for slices accelerator.kind=mig and accelerator.mig.profile") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $sizes.requests $sizes.limits (gt $sizes.requests $sizes.limits) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s%s.requests.memory" $.at $where) "what" (printf "%v is more than the limit %v" $resources.requests.memory $resources.limits.memory) "fix" "raise the limit") -}}
{{- end -}}
{{- end -}}
{{- with dig "limits" "memory" "" $v.resources -}}
{{- $limit := include "tritonkit.bytes" (dict "quantity" . "where" (printf "%sresources.limits.memory" $.at)) | int64 -}}
{{- if and (le $limit $shm) (ne $v.accelerator.kind "mps") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sresources.limits.memory" $.at) "what" (printf "%v does not exceed sharedMemory.size %v, which counts against it" . $v.sharedMemory.size) "fix" "raise the limit by what Triton and the models take, or lower sharedMemory.size") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.checkServer" -}}
{{- $v := .w.values -}}
{{- if and (include "tritonkit.servesIPv6" .root) (not $v.front.enabled) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sfront.enabled" .at) "what" "false, and a Service has IPv6 addresses, on which Triton does not listen" "fix" "set it to true, or keep service.http and service.grpc at IPv4") -}}
{{- end -}}
{{- $ports := dict -}}
{{- $names := list "server.httpPort" "server.grpcPort" "server.metricsPort" -}}
{{- if $v.front.enabled }}{{ $names = concat $names (list "front.httpPort" "front.grpcPort") }}{{ end -}}
{{- range $names -}}
{{- $where := splitList "." . -}}
{{- $port := toString (int (get (get $v (first $where)) (last $where))) -}}
{{- if hasKey $ports $port -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s%s" $.at .) "what" (printf "port %s is %s, too" $port (get $ports $port)) "fix" "choose another") -}}
{{- end -}}
{{- $_ := set $ports $port . -}}
{{- end -}}
{{- range $v.server.extraArgs -}}
{{- $flag := regexFind "^--[a-z0-9-]+" . -}}
{{- if not $flag -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sserver.extraArgs" $.at) "what" (printf "%q is not --name=value" .) "fix" "write an argument and its value as one, such as --cache-config=local,size=1048576") -}}
{{- end -}}
{{- $owner := get (include "tritonkit.ownedFlags" $ | fromYaml) $flag -}}
{{- if $owner -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sserver.extraArgs" $.at) "what" (printf "%s is set by the chart" $flag) "fix" (printf "use %s" $owner)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Arguments that a value sets, or that would break probes and ports. */}}
{{- define "tritonkit.ownedFlags" -}}
--model-repository: models
--model-store: models
--model-control-mode: models.names (empty loads all; what is loaded changes with a new version)
--load-model: models.names
--repository-poll-secs: a new version of the repository (`tritonkit publish`); polling is not for production
--strict-readiness: server.strictReadiness
--exit-on-error: server.exitOnError
--exit-timeout-secs: server.exitTimeoutSeconds
--http-port: server.httpPort
--grpc-port: server.grpcPort
--metrics-port: server.metricsPort
--allow-http: another load balancer; the probes need HTTP
--allow-grpc: front; it and the Services lead to gRPC
--http-address: nothing; the probes and Services come to the pod's address
--grpc-address: nothing; the Services come to the pod's address
--metrics-address: nothing; Prometheus comes to the pod's address
--grpc-use-ssl: TLS at the Gateway or Ingress, or front.enabled=false with a sidecar
--grpc-use-ssl-mutual: TLS at the Gateway or Ingress, or front.enabled=false with a sidecar
--allow-metrics: monitoring
--log-verbose: server.logVerbose
--http-restricted-api: admin.restrict
--grpc-restricted-protocol: admin.restrict
{{- end -}}
