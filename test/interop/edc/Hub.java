// SPDX-License-Identifier: Apache-2.0

import org.eclipse.edc.identityhub.spi.participantcontext.ParticipantContextService;
import org.eclipse.edc.identityhub.spi.participantcontext.model.KeyDescriptor;
import org.eclipse.edc.identityhub.spi.participantcontext.model.ParticipantManifest;
import org.eclipse.edc.identityhub.spi.transformation.ScopeToCriterionTransformer;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.runtime.metamodel.annotation.Provider;
import org.eclipse.edc.spi.query.Criterion;
import org.eclipse.edc.spi.result.Result;
import org.eclipse.edc.spi.security.Vault;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

import java.util.List;
import java.util.Map;

/** What a deployment adds to the IdentityHub: its first user, and DCP 1.0's scopes, of which 0.15.1 knows only an older spelling. */
public class Hub implements ServiceExtension {
    private static final String ADMIN = "super-user";

    @Inject
    private ParticipantContextService participants;
    @Inject
    private Vault vault;

    private String key;

    @Override
    public void initialize(ServiceExtensionContext context) {
        key = context.getConfig().getString("interop.hub.key");
    }

    @Override
    public void start() {
        participants.createParticipantContext(ParticipantManifest.Builder.newInstance().participantContextId(ADMIN).did("did:web:" + ADMIN).active(true)
                .roles(List.of("admin")).apiKeyAlias(ADMIN + "-key")
                .key(KeyDescriptor.Builder.newInstance().keyId(ADMIN + "-signing").privateKeyAlias(ADMIN + "-private").keyGeneratorParams(Map.of("algorithm", "EC")).build())
                .build()).orElseThrow(f -> new IllegalStateException(f.getFailureDetail()));
        vault.storeSecret(ADMIN, ADMIN + "-key", key).orElseThrow(f -> new IllegalStateException(f.getFailureDetail()));
    }

    @Provider
    public ScopeToCriterionTransformer scopes() {
        return scope -> {
            var parts = scope.split(":");
            return parts.length >= 2 && parts[0].equals("org.eclipse.dspace.dcp.vc.type")
                    ? Result.success(new Criterion("verifiableCredential.credential.type", "contains", parts[1])) : Result.failure("scope " + scope + " is not known");
        };
    }
}
