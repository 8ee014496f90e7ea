// SPDX-License-Identifier: Apache-2.0

import jakarta.ws.rs.GET;
import jakarta.ws.rs.HeaderParam;
import jakarta.ws.rs.Path;
import jakarta.ws.rs.core.Response;
import org.eclipse.edc.connector.dataplane.spi.Endpoint;
import org.eclipse.edc.connector.dataplane.spi.iam.DataPlaneAuthorizationService;
import org.eclipse.edc.connector.dataplane.spi.iam.PublicEndpointGeneratorService;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.security.Vault;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;
import org.eclipse.edc.web.spi.WebService;
import org.eclipse.edc.web.spi.configuration.PortMapping;
import org.eclipse.edc.web.spi.configuration.PortMappingRegistry;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.GeneralSecurityException;
import java.security.Key;
import java.security.KeyPairGenerator;
import java.util.Base64;
import java.util.Map;

/** The public endpoint of EDC's data plane, which 0.15.1 comes without, and the keys of its tokens. */
public class DataEndpoint implements ServiceExtension {
    private static final String CONTEXT = "public";
    private static final String NAMESPACE = "https://w3id.org/edc/v0.0.1/ns/";

    @Inject
    private DataPlaneAuthorizationService authorization;
    @Inject
    private PublicEndpointGeneratorService endpoints;
    @Inject
    private PortMappingRegistry ports;
    @Inject
    private WebService web;
    @Inject
    private Vault vault;

    @Override
    public void initialize(ServiceExtensionContext context) {
        var port = context.getConfig().getInteger("web.http.public.port");
        ports.register(new PortMapping(CONTEXT, port, "/public"));
        endpoints.addGeneratorFunction("HttpData", source -> Endpoint.url("http://127.0.0.1:" + port + "/public"));
        web.registerResource(CONTEXT, new Proxy(authorization));
        try {
            var pair = KeyPairGenerator.getInstance("EC").generateKeyPair();
            vault.storeSecret(context.getConfig().getString("edc.transfer.proxy.token.signer.privatekey.alias"), pem("PRIVATE", pair.getPrivate()));
            vault.storeSecret(context.getConfig().getString("edc.transfer.proxy.token.verifier.publickey.alias"), pem("PUBLIC", pair.getPublic()));
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String pem(String kind, Key key) {
        return "-----BEGIN " + kind + " KEY-----\n" + Base64.getMimeEncoder().encodeToString(key.getEncoded()) + "\n-----END " + kind + " KEY-----\n";
    }

    /** Serves what the token opens. */
    @Path("{any:.*}")
    public static class Proxy {
        private final HttpClient client = HttpClient.newHttpClient();
        private final DataPlaneAuthorizationService authorization;

        Proxy(DataPlaneAuthorizationService authorization) {
            this.authorization = authorization;
        }

        @GET
        public Response get(@HeaderParam("Authorization") String token) throws IOException, InterruptedException {
            if (token == null) {
                return Response.status(Response.Status.UNAUTHORIZED).build();
            }
            var source = authorization.authorize(token, Map.of());
            if (source.failed()) {
                return Response.status(Response.Status.FORBIDDEN).build();
            }
            var request = HttpRequest.newBuilder(URI.create(source.getContent().getStringProperty(NAMESPACE + "baseUrl"))).build();
            var answer = client.send(request, BodyHandlers.ofByteArray());
            return Response.status(answer.statusCode()).entity(answer.body()).type(answer.headers().firstValue("Content-Type").orElse("application/octet-stream")).build();
        }
    }
}
