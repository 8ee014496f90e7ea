// SPDX-License-Identifier: Apache-2.0

import com.fasterxml.jackson.databind.ObjectMapper;
import org.eclipse.edc.connector.controlplane.contract.spi.policy.ContractNegotiationPolicyContext;
import org.eclipse.edc.connector.controlplane.contract.spi.policy.TransferProcessPolicyContext;
import org.eclipse.edc.iam.decentralizedclaims.spi.SecureTokenService;
import org.eclipse.edc.iam.decentralizedclaims.spi.scope.ScopeExtractorRegistry;
import org.eclipse.edc.iam.verifiablecredentials.spi.model.VerifiableCredential;
import org.eclipse.edc.participant.spi.ParticipantAgentPolicyContext;
import org.eclipse.edc.policy.context.request.spi.RequestCatalogPolicyContext;
import org.eclipse.edc.policy.context.request.spi.RequestContractNegotiationPolicyContext;
import org.eclipse.edc.policy.context.request.spi.RequestPolicyContext;
import org.eclipse.edc.policy.context.request.spi.RequestTransferProcessPolicyContext;
import org.eclipse.edc.policy.engine.spi.PolicyEngine;
import org.eclipse.edc.policy.engine.spi.RuleBindingRegistry;
import org.eclipse.edc.policy.model.Operator;
import org.eclipse.edc.policy.model.Permission;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.runtime.metamodel.annotation.Provider;
import org.eclipse.edc.spi.iam.TokenRepresentation;
import org.eclipse.edc.spi.result.Result;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.time.Period;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/** What a dataspace adds to EDC for DCP: which credentials are asked for, how their constraint is evaluated, and the client of the token service. */
public class Claims implements ServiceExtension {
    private static final String SCOPE = "org.eclipse.dspace.dcp.vc.type:%s:read";
    private static final String ATTESTATION = "AttestationCredential";

    @Inject
    private PolicyEngine engine;
    @Inject
    private RuleBindingRegistry bindings;
    @Inject
    private ScopeExtractorRegistry extractors;

    @Override
    public void initialize(ServiceExtensionContext context) {
        var provider = context.getConfig().getString("interop.operand.provider");
        var consumer = context.getConfig().getString("interop.operand.consumer");
        engine.registerPostValidator(RequestCatalogPolicyContext.class, (policy, request) -> member(request));
        engine.registerPostValidator(RequestContractNegotiationPolicyContext.class, (policy, request) -> member(request));
        engine.registerPostValidator(RequestTransferProcessPolicyContext.class, (policy, request) -> member(request));
        extractors.registerScopeExtractor((left, operator, right, request) -> Set.of(provider, consumer).contains(left) ? Set.of(SCOPE.formatted(ATTESTATION)) : Set.of());
        // EDC evaluates a policy on its counterparty only, and as consumer not at all: it looks at the consumer's attestation, never at its own.
        for (var scope : List.of("contract.negotiation", "transfer.process")) {
            bindings.bind("use", scope);
            bindings.bind("http://www.w3.org/ns/odrl/2/use", scope);
            bindings.bind(consumer, scope);
            bindings.bind(provider, scope);
        }
        engine.registerFunction(ContractNegotiationPolicyContext.class, Permission.class, consumer, (operator, right, rule, request) -> younger(operator, right, request));
        engine.registerFunction(TransferProcessPolicyContext.class, Permission.class, consumer, (operator, right, rule, request) -> younger(operator, right, request));
        engine.registerFunction(ContractNegotiationPolicyContext.class, Permission.class, provider, (operator, right, rule, request) -> true);
        engine.registerFunction(TransferProcessPolicyContext.class, Permission.class, provider, (operator, right, rule, request) -> true);
    }

    private static boolean member(RequestPolicyContext request) {
        request.requestScopeBuilder().scope(SCOPE.formatted("MembershipCredential"));
        return true;
    }

    private static boolean younger(Operator operator, Object right, ParticipantAgentPolicyContext request) {
        var ages = ((List<?>) request.participantAgent().getClaims().getOrDefault("vc", List.of())).stream().map(VerifiableCredential.class::cast)
                .filter(credential -> credential.getType().contains(ATTESTATION))
                .flatMap(credential -> credential.getCredentialSubject().stream())
                .map(subject -> OffsetDateTime.parse(subject.getClaims().get("completedAt").toString())).toList();
        if (operator != Operator.LT || ages.stream().noneMatch(age -> age.plus(Period.parse(right.toString())).isAfter(OffsetDateTime.now()))) {
            request.reportProblem("the attestation of %s is missing or older than %s: %s".formatted(request.participantAgent().getIdentity(), right, ages));
            return false;
        }
        return true;
    }

    /** The client of the hub's token service, which is not published for 0.15.1. */
    @Provider
    public SecureTokenService tokens(ServiceExtensionContext context) {
        var url = URI.create(context.getConfig().getString("interop.sts.url"));
        var id = context.getConfig().getString("interop.sts.id");
        var secret = context.getConfig().getString("interop.sts.secret");
        var client = HttpClient.newHttpClient();
        return (participant, claims, scope) -> {
            var form = new HashMap<>(Map.of("grant_type", "client_credentials", "client_id", id, "client_secret", secret, "audience", claims.get("aud").toString()));
            if (scope != null) {
                form.put("bearer_access_scope", scope);
            }
            if (claims.get("token") != null) {
                form.put("token", claims.get("token").toString());
            }
            var body = form.entrySet().stream().map(e -> e.getKey() + "=" + URLEncoder.encode(e.getValue(), StandardCharsets.UTF_8)).collect(Collectors.joining("&"));
            try {
                var answer = client.send(HttpRequest.newBuilder(url).timeout(Duration.ofSeconds(20)).header("Content-Type", "application/x-www-form-urlencoded")
                        .POST(HttpRequest.BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
                if (answer.statusCode() != 200) {
                    return Result.failure("the token service answered " + answer.statusCode());
                }
                return Result.success(TokenRepresentation.Builder.newInstance().token(new ObjectMapper().readTree(answer.body()).get("access_token").asText()).build());
            } catch (IOException e) {
                return Result.failure("the token service: " + e.getMessage());
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                return Result.failure("interrupted");
            }
        };
    }
}
